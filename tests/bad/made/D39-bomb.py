"""A gzip file that unpacks to a thousand times what its IDX header says."""

from tests.support.bad_files import fashion_of_two_images, idx, packed

first = fashion_of_two_images()
first.write_bytes(packed(idx(2, 28, 28) + bytes(2_000_000)))
