"""The Salesforce adapter: sign-in, REST, SOQL, Bulk API 2.0, and the catalogue of Salesforce's errors."""

from forcelift.salesforce.auth import AuthSettings
from forcelift.salesforce.catalogue import Remedy, explain, remedy
from forcelift.salesforce.client import HttpSettings
from forcelift.salesforce.org import API_VERSION, SalesforceOrg, connect
from forcelift.salesforce.refusals import CatalogueReader

__all__ = [
    "API_VERSION",
    "AuthSettings",
    "CatalogueReader",
    "HttpSettings",
    "Remedy",
    "SalesforceOrg",
    "connect",
    "explain",
    "remedy",
]
