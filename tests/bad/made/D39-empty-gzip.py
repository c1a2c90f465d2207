"""A gzip file with nothing in it."""

from tests.support.bad_files import fashion_of_two_images, packed

first = fashion_of_two_images()
first.write_bytes(packed(b""))
