"""Tables in an object store: s3://, gs:// and hf://."""
