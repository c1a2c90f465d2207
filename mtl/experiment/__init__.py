"""One recipe becomes one run: this folder begins, resumes and finishes it."""
