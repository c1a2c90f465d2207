"""A file that is neither gzip nor IDX."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
first.write_bytes(b"<!DOCTYPE html>")
