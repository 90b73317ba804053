"""Refused rows after a load: shown, corrected by people, sent again."""
