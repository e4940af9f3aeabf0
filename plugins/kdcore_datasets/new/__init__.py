"""``kdcore data new``: look at a folder of recordings and write the recipe that reads them."""
