"""A flipped byte in a gzip file."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
data = bytearray(first.read_bytes())
data[14] ^= 0xFF
first.write_bytes(data)
