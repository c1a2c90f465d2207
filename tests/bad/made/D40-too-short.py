"""Fewer values than the header says."""

from tests.support.bad_files import fashion_of_two_images, idx, packed

first = fashion_of_two_images()
first.write_bytes(packed(idx(2, 28, 28)[:-5]))
