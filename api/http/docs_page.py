"""`/docs`: Swagger UI with local assets, so that it works without the internet."""

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi_swagger import patch_fastapi
from starlette.responses import RedirectResponse

_PARAMETERS = {"tryItOutEnabled": True, "persistAuthorization": True, "filter": True, "displayRequestDuration": True}


def install_docs(app: FastAPI) -> None:
    """Adds the page and its assets. All links are relative: the host and scheme of a proxy are not known here."""
    # Its own page would name the request's Host and scheme.
    patch_fastapi(app, docs_url="/swagger/page", redirect_from_root_to_docs=False)

    @app.get("/", include_in_schema=False)
    async def redirect_to_docs() -> Response:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} - Swagger UI",
            swagger_js_url="swagger/swagger-ui-bundle.js",
            swagger_css_url="swagger/swagger-ui.css",
            swagger_favicon_url="swagger/favicon-32x32.png",
            swagger_ui_parameters=_PARAMETERS,
        )
