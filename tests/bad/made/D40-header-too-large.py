"""A header that announces terabytes."""

from tests.support.bad_files import fashion_of_two_images, packed

first = fashion_of_two_images()
first.write_bytes(packed(b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3))
