\set customer random(1, 100000)
\set product random(1, 10000)
\set quantity random(1, 9)
\set cents random(100, 99999)
INSERT INTO orders (customer_id, product_id, quantity, price, currency, channel, country, ordered_at, note) VALUES (:customer, :product, :quantity, :cents / 100.0, 'EUR', 'web', 'de', now(), 'leave it at the door, please');
