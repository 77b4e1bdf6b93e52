"""What notebooks define, against the library: one module a notebook, of functions under `page_definitions.case`."""
