"""Numbers of four bytes."""

from tests.support.bad_files import fashion_of_two_images, packed

first = fashion_of_two_images()
first.write_bytes(packed(b"\0\0\x0d\x03" + bytes(12)))
