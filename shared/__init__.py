"""What the supervisor and the workers both use: config, messages, counters, errors, codecs."""

from shared import source_only

source_only.heed(__path__)
