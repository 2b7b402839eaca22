"""Where objects lie by key: S3, and folders of this machine, behind one small interface."""
