"""Views: pure folds over a stream's records. No asyncio, no clock, no files; time is an argument."""
