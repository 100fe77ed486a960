"""Streams in web frameworks: ``integrations.fastapi`` (for Starlette too) and ``integrations.flask``.

Each of them imports its framework; this package imports none.
"""
