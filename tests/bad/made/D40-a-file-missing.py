"""Three of the four files."""

from tests.support.bad_files import fashion_of_two_images

first = fashion_of_two_images()
first.unlink()
