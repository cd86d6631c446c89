"""Why a detector says what it says."""
