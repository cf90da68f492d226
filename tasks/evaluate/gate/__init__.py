"""Stage `gate`: candidate against champion."""
