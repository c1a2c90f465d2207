"""Two images in place of 60,000."""

from tests.support.bad_files import fashion_of_two_images

fashion_of_two_images()
