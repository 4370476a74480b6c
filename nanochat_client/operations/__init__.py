"""Every call of the API as data, a file for each topic. `nanochat_client.calls` makes methods of them."""
