"""Tables and media to batches: reading, safe decoding, measuring the schema, collating.

Nothing is imported here, so that the torch-free runtime can import `decode` and `collate` alone.
"""
