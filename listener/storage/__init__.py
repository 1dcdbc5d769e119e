"""The data folder: inbox, results, receipts."""
