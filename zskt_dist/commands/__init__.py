"""One file for each verb: parse first, import later."""
