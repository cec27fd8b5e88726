"""`python -m supervisor.cli`: the same as `proxyctl`."""

from supervisor.cli.main import main

main()
