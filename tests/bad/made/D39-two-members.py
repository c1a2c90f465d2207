"""Two gzip members."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
first.write_bytes(first.read_bytes() * 2)
