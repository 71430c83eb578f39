// Starts Swagger UI on this service's own document, or says that it is not there.
'use strict';

if (window.SwaggerUIBundle) {
  document.getElementById('plain').hidden = true;
  SwaggerUIBundle({
    url: 'openapi.json',
    dom_id: '#docs',
    deepLinking: true,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null, // it would send the document to a server elsewhere
  });
} else {
  document.getElementById('missing').hidden = false;
}
