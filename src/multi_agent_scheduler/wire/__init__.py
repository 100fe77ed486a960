"""Bytes to records and back, one package a protocol. Pure: no asyncio, no clock, no files, no randomness."""
