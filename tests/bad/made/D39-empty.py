"""An empty file."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
first.write_bytes(b"")
