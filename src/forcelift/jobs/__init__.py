"""The engine: a pure coordinator that decides, handlers that do, and the results of bulk jobs settled by key."""
