"""Images of another size."""

from tests.support.bad_files import fashion_of_two_images, idx, packed

first = fashion_of_two_images()
first.write_bytes(packed(idx(60_000, 14, 14), 1))
