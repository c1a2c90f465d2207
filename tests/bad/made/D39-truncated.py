"""The first half of a gzip file."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
