// Starts Swagger UI on the service's own document. A file of its own, so that no inline script is needed.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // else documents are sent to a validator elsewhere
  queryConfigEnabled: false, // else a link could point this page at another service
});
