"""Shards: a set of Parquet files on shared or object storage, verified where they stand.

`store` opens places (`s3://bucket/traces/*.parquet`, `file://`, a local folder), `pieces` says
what is checked at once, `record` what an output shard knows of how it was made, `check` is what
a worker does, `verify` what the driver does: names and counts pass through it, no rows.
"""
