"""A long-lived service: many studies of many tenants, trained by one policy on one machine."""

from alto_service.serving import serve

__all__ = ["serve"]
