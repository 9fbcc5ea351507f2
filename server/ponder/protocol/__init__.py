"""The wire: pydantic requests, responses and errors; every dialect of a budget becomes one."""
