"""The honest zoo: many architectures, each grafted, trained, exported and compared; `python -m tests.zoo`."""
