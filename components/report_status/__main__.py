"""Shell form of the task; see components/report_status/stage.py."""

from components.report_status.stage import main

main()
