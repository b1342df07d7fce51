"""Removal of credentials from texts that are printed, logged or stored."""

import re

# The second form is a password with an unescaped slash, which database drivers accept; `:8080/` is a port instead.
_USER = re.compile(r"""([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#]*@|[^\s/?#:@]*:(?!\d+/)[^\s@"'<>]*@)""")
_SECRET = r"token|key|secret|passw|pwd|sig|credential|auth"
_PARAMETER = re.compile(rf"""([?&;][^\s=&;#]*(?:{_SECRET})[^\s=&;#]*=)[^\s&;#"'<>]+""", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace user names and passwords in the URIs of a text, and query parameters such as `token`, by ***."""
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1***@", text))
