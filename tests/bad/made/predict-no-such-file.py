"""A file that is not there."""

from tests.support.runs import run_on_arrays

run_on_arrays()
