"""What can be restored: each task one module with the functions of :class:`deepcontrast.task.Task`."""
