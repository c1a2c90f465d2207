"""Another checksum at the end of a gzip file."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
data = bytearray(first.read_bytes())
data[-8] ^= 0xFF
first.write_bytes(data)
