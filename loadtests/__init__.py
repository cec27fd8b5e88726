"""Load tests: a comparison with HAProxy and nginx, and a load with reloads. Run by hand."""
