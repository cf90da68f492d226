"""Stage `package`: what is trained, with all that is needed to judge and serve it."""
