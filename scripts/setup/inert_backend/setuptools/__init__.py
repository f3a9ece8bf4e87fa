"""Stands in for setuptools while pip downloads an sdist: see wheels.py."""
