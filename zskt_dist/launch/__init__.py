"""Starting workers: in this process, in local processes, or on Ray."""
