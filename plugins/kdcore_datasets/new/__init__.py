"""Implementation of ``kdcore data new``: inspect a folder of recordings and write a recipe that reads them."""
