"""A file that is not there."""

from tests.support.bad_files import run_on_arrays

run_on_arrays()
