"""What the supervisor and the workers both use: config, messages, counters, errors, codecs."""
